"Alerts told over real channels: a chat's webhook, a mail server, files; down, slow, refusing; two monitors at once; killed in the middle."
import json, logging, os, signal, socketserver, subprocess, sys, threading, time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conftest import cli, files, one_line, write_settings
from servers import pg   # noqa: F401, a real server
from mlops_nb.core import database, ledger
from mlops_nb.core.finding import BadInput, Finding
from mlops_nb.monitor import alerts, channels
from mlops_nb.monitor.channels import Channel, Message

HOT, WARM, FINE = (Finding("auc", "late_flights", v, .66, v > .66, level, "95 % interval", "mlops-nb retrain") for v, level in ((.61, "error"), (.65, "warn"), (.7, "error")))

class Chat:
    "A chat's webhook; `answers` are status codes to give, one a request, then 200."
    def __init__(self, *answers, port=0):
        self.got, self.answers, chat = [], list(answers), self
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                chat.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                code = chat.answers.pop(0) if chat.answers else 200
                if callable(code): code = code()
                self.send_response(code)
                if code == 302: self.send_header("Location", f"{chat.url}/elsewhere")
                self.end_headers()
            do_GET = do_POST
            def log_message(self, *args): pass
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/services/T0/xyzzy-secret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
    @property
    def texts(self): return [g["text"] for g in self.got]
    def close(self): self.server.shutdown(), self.server.server_close()

@pytest.fixture
def chat():
    made = []
    def start(*answers, port=0):
        made.append(Chat(*answers, port=port))
        return made[-1]
    yield start
    for c in made: c.close()

class Mail(socketserver.StreamRequestHandler):
    "As much of RFC 5321 as a mail needs."
    def handle(self):
        say = lambda text: self.wfile.write(f"{text}\r\n".encode())
        say("220 post")
        for line in self.rfile:
            word = line.decode().split()[0].upper()
            self.server.words.append(line.decode().strip())
            if word == "EHLO": say(f"250-post\r\n250 {self.server.offers}")
            elif word == "AUTH": say("235 welcome")
            elif word == "DATA":
                say("354 go on")
                body = []
                while (text := self.rfile.readline()) != b".\r\n": body.append(text.decode())
                self.server.mails.append("".join(body))
                say("250 taken")
            elif word == "QUIT": return say("221 bye")
            else: say(self.server.refuses.get(word, "250 ok"))

@pytest.fixture
def post():
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
    server.daemon_threads, server.mails, server.words, server.refuses, server.offers = True, [], [], {}, "AUTH PLAIN"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown(), server.server_close()

def configure(folder, **lines): write_settings(folder, mlops_nb={}, alerts={k: str(v) for k, v in lines.items()})
def tell(): return alerts.tell(waits=(.01, .02))
def deliveries(): return [(r["channel"], r["state"], r["tries"]) for r in database.rows("delivery")]

# --- a webhook ---

def test_one_alarm_is_told_once_and_when_it_is_over(local, chat):
    team = chat()
    configure(local, team=team.url)
    alerts.raise_([HOT], "late_flights")
    assert not tell()[0].error and tell() == []
    alerts.raise_([HOT], "late_flights")
    assert tell() == []                          # it stands; nothing new to say
    alerts.raise_([FINE], "late_flights")
    tell()
    assert len(team.got) == 2 and set(team.got[0]) == {"text"}
    assert team.texts[0].splitlines()[0] == "late_flights: 1 alarm" and "0.61 (limit 0.66)" in team.texts[0] and "mlops-nb retrain" in team.texts[0].replace("&gt;", ">")
    assert team.texts[1].startswith("late_flights: 1 over")

def test_a_webhook_that_is_down_is_tried_again_at_the_next_look(local, chat):
    gone = chat()
    port = gone.server.server_address[1]
    gone.close()
    configure(local, team=f"http://127.0.0.1:{port}/hook", journal="file:alerts.jsonl")
    alerts.raise_([HOT], "late_flights")
    team, journal = tell()
    assert "refused" in team.error and team.tries == 3 and not journal.error
    assert deliveries() == [("team", "failed", 3), ("journal", "sent", 1)]
    back = chat(port=port)
    assert [s.channel for s in tell()] == ["team"] and len(back.got) == 1
    assert deliveries()[0] == ("team", "sent", 4)

def test_what_was_down_until_it_was_over_stays_silent(local, chat):
    configure(local, team="http://127.0.0.1:9/hook")
    alerts.raise_([HOT], "late_flights")
    assert tell()[0].error
    alerts.raise_([FINE], "late_flights")
    assert tell() == []

@pytest.mark.parametrize("answers, tries, error", [((500, 200), 2, ""), ((429, 429, 200), 3, ""), ((404,), 1, "404"), ((302,), 1, "302"), ((503, 503, 503), 3, "503")])
def test_errors_of_a_server(local, chat, answers, tries, error):
    "What may pass is tried again; what will not is told at once, and nothing follows it elsewhere."
    team = chat(*answers)
    sent = channels.send(Channel("team", team.url), Message("hello"), waits=(.01, .01))
    assert sent.tries == tries == len(team.got) and (error in sent.error if error else not sent.error)

def test_a_slow_server_does_not_hold_the_run(local, chat):
    team = chat(lambda: time.sleep(3) or 200)
    begin = time.monotonic()
    sent = channels.send(Channel("team", team.url), Message("hello"), waits=(), timeout=.3)
    assert "timed out" in sent.error and time.monotonic() - begin < 2.5

def test_names_from_data_call_nobody(local, chat):
    team = chat()
    configure(local, team=team.url)
    alerts.raise_([replace(HOT, subject="<!channel> & <http://evil|click>\nnew line")], "late_flights")
    tell()
    assert "<" not in team.texts[0] and "&lt;!channel&gt; &amp;" in team.texts[0] and len(team.texts[0].splitlines()) == 2

def test_secrets_are_nowhere(local, chat, monkeypatch, caplog):
    team = chat(404)
    monkeypatch.setenv("TEAM_HOOK", team.url)
    configure(local, team="$TEAM_HOOK", gone="https://nowhere.invalid/$TEAM_HOOK", console="log:", journal="file:alerts.jsonl")
    monkeypatch.setenv("DATA_TOKEN", "hush-hush-1")
    alerts.raise_([replace(HOT, note="read with hush-hush-1")], "late_flights")
    with caplog.at_level(logging.WARNING): said = repr(tell())
    ledger.close()
    assert "xyzzy" not in said + caplog.text and "hush" not in said + caplog.text and "late_flights: 1 alarm" in caplog.text
    for f in files(local): assert not any(s in (local/f).read_bytes() for s in (b"xyzzy", b"hush")), f

def test_a_secret_that_is_not_set_is_said(local):
    configure(local, team="$NO_SUCH_HOOK")
    alerts.raise_([HOT], "late_flights")
    sent, = tell()
    assert "'NO_SUCH_HOOK' is not set" in sent.error and deliveries() == [("team", "failed", 0)]

def test_ten_thousand_alarms_are_one_short_message(local, chat):
    team = chat()
    configure(local, team=team.url)
    found = [Finding("drift", f"x{i}", .5, .02, ok=False) for i in range(10_000)]
    assert len(alerts.raise_(found, "wide").changed) == 10_000 and not alerts.raise_(found, "wide").changed
    tell()
    assert len(team.got) == 1 and "wide: 10,000 alarms" in team.texts[0] and "and 9,980 more" in team.texts[0] and len(team.texts[0]) < 4000
    assert tell() == [] and len(alerts.listing("wide")) == 10_000

# --- mail ---

def test_a_mail(local, post):
    port = post.server_address[1]
    sent = channels.send(Channel("night", f"smtp://127.0.0.1:{port}/?from=monitor@example.org&to=ana@example.org"), Message("late_flights: 1 alarm\nBcc: all@example.org", ("auc is 0.61",)))
    assert not sent.error and sent.to == "mail at 127.0.0.1", sent
    assert "Subject: late_flights: 1 alarm Bcc: all@example.org" in post.mails[0] and "To: ana@example.org" in post.mails[0] and "auc is 0.61" in post.mails[0]
    assert [w for w in post.words if w.upper().startswith("RCPT")] == ["RCPT TO:<ana@example.org>"] or "rcpt TO:<ana@example.org>" in post.words

def test_a_password_does_not_travel_in_the_clear(local, post, monkeypatch):
    "127.0.0.2 is another machine as far as we know; to this machine itself it may go."
    monkeypatch.setenv("MAIL_PASSWORD", "correct-horse")
    port = post.server_address[1]
    home = channels.send(Channel("night", f"smtp://ana:$MAIL_PASSWORD@127.0.0.1:{port}/?to=ana@example.org"), Message("hello"))
    assert not home.error and any(w.startswith("AUTH") for w in post.words)
    post.words.clear()
    server = socketserver.ThreadingTCPServer(("127.0.0.2", 0), Mail)
    server.daemon_threads, server.mails, server.words, server.refuses, server.offers = True, [], [], {}, "AUTH PLAIN"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: sent = channels.send(Channel("night", f"smtp://ana:$MAIL_PASSWORD@127.0.0.2:{server.server_address[1]}/?to=ana@example.org"), Message("hello"))
    finally: server.shutdown(), server.server_close()
    assert "in the clear" in sent.error and sent.tries == 1 and "correct-horse" not in repr(sent)
    assert not server.mails and not any(w.startswith("AUTH") for w in server.words)

def test_a_mail_server_that_refuses(local, post):
    post.refuses["RCPT"] = "550 no such person"
    sent = channels.send(Channel("night", f"smtp://127.0.0.1:{post.server_address[1]}/?to=nobody@example.org"), Message("hello"), waits=())
    assert "no such person" in sent.error and not post.mails

# --- silence, acknowledge, escalate ---

def test_a_silence_holds_its_tongue_until_it_ends(local, chat):
    team = chat()
    configure(local, team=team.url)
    alerts.raise_([HOT], "late_flights")
    alerts.silence("late_flights/auc", "3d", "the source is being mended")
    assert tell() == [] and alerts.standing() == [] and "silenced" in alerts.listing()[0]["state"]
    alerts.silence("late_flights/auc", "now", "mended")
    assert len(tell()) == 1 and len(alerts.standing()) == 1

def test_an_alarm_nobody_takes_goes_to_those_on_call(local, chat):
    team, oncall = chat(), chat()
    configure(local, team=team.url, oncall=oncall.url, escalate_to="oncall", escalate_after=3)
    for _ in range(3):
        alerts.raise_([HOT], "late_flights")
        tell()
    assert len(team.got) == 1 and len(oncall.got) == 1 and "nobody has acknowledged it" in oncall.texts[0]
    alerts.raise_([FINE], "late_flights")
    tell()
    assert "over" in team.texts[-1] and "over" in oncall.texts[-1]

def test_who_has_taken_it_is_left_alone_until_it_gets_worse(local, chat):
    team = chat()
    configure(local, team=team.url, level="warn", escalate_after=2)
    alerts.raise_([WARM], "late_flights")
    tell()
    alerts.acknowledge("late_flights", "looking into it", who="ana")
    alerts.raise_([HOT], "late_flights")
    tell()
    assert len(team.got) == 2 and "worse" in team.texts[1] and alerts.standing()[0].who == ""
    alerts.acknowledge("late_flights", "retraining", who="ana")
    for _ in range(5): alerts.raise_([HOT], "late_flights")
    assert tell() == [] and alerts.listing()[0]["state"] == "acknowledged by ana: retraining"
    assert {"who": "ana", "why": "retraining", "alerts": 1} in ledger.events("acknowledge").detail.tolist()

def test_warnings_are_kept_and_not_sent(local, chat):
    team = chat()
    configure(local, team=team.url)
    alerts.raise_([WARM, Finding("label_lag", "late_flights", 31., level="info", ok=False)], "late_flights")
    assert tell() == [] and [a.level for a in alerts.standing()] == ["warn"]

def test_slices_are_alerts_of_their_own_and_the_worse_of_two_counts(local):
    seen = alerts.raise_([replace(HOT, subject="origin=JFK"), replace(WARM, subject="origin=JFK"), replace(FINE, subject="origin=EWR"), WARM], "late_flights")
    assert [(a.subject, a.level) for a in seen.standing] == [("origin=JFK", "error"), ("late_flights", "warn")]

def test_a_check_that_measured_nothing_ends_nothing(local):
    alerts.raise_([HOT], "late_flights")
    seen = alerts.raise_([replace(HOT, value=None, level="warn")], "late_flights")
    assert seen.standing[0].value == .61 and not seen.changed

# --- at once, and in the middle ---

RACE = """import sys, time
from mlops_nb.core.finding import Finding
from mlops_nb.monitor import alerts
time.sleep(max(0, float(sys.argv[1]) - time.time()))
for _ in range(5):
    alerts.raise_([Finding("auc", "late_flights", .61, .66, ok=False)], "late_flights", after=1000)
    alerts.tell(waits=(.01,))"""

@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_monitors_at_once_raise_and_send_once(local, chat, kind, monkeypatch, request):
    team = chat()
    if kind == "postgres": monkeypatch.setenv("MLOPS_NB_DATABASE", request.getfixturevalue("pg").url())
    configure(local, team=team.url)
    alerts.standing()
    at = str(time.time() + 4)
    runs = [subprocess.Popen([sys.executable, "-c", RACE, at], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for r in runs: assert r.wait(60) == 0, r.stderr.read()
    assert len(team.got) == 1 and alerts.listing()[0]["looks"] == 20 and deliveries() == [("team", "sent", 1)]

KILLED = """from mlops_nb.monitor import alerts
alerts.tell(waits=())"""

def test_killed_while_it_sends_it_is_sent_again_later(local, chat):
    here = {}
    team = chat(lambda: os.kill(here["run"].pid, signal.SIGKILL) or 200)
    configure(local, team=team.url)
    alerts.raise_([HOT], "late_flights")
    here["run"] = subprocess.Popen([sys.executable, "-c", KILLED])
    assert here["run"].wait(60) == -signal.SIGKILL
    assert deliveries() == [("team", "sending", 0)] and tell() == []     # somebody may be at it
    database.write("UPDATE delivery SET at = '2013-01-01T00:00:00.000+00:00'", {})
    assert len(tell()) == 1 and len(team.got) == 2

# --- settings and the command line ---

@pytest.mark.parametrize("lines, said", [(dict(levle="warn"), "did you mean 'level'"), (dict(level="alarm"), "neither error nor warn"), (dict(escalate_after="0"), "whole number from 1"),
    (dict(team="hooks.slack.com/x"), "neither a setting"), (dict(team="log:", escalate_to="teem"), "did you mean 'team'"), (dict(team="ftp://x"), "neither a setting")])
def test_settings_that_cannot_be(local, lines, said):
    configure(local, **lines)
    with pytest.raises(BadInput, match=said.replace("?", r"\?")): channels.alerting()

def test_the_command_line(local, chat):
    team = chat()
    configure(local, team=team.url, journal="file:reports/alerts.jsonl")
    done = cli("alerts", "test", "--json")
    assert done.returncode == 0 and [r["state"] for r in json.loads(done.stdout)] == ["sent", "sent"] and "a test of this channel" in team.texts[0]
    alerts.raise_([HOT], "late_flights")
    assert "late_flights/auc/late_flights" in cli("alerts", "list").stdout
    assert cli("alerts", "ack", "late_flights", "--why", "tonight").returncode == 0
    one_line(cli("alerts", "silence", "late_flights", "--until", "yesterday", "--why", "no"), 2, "is no moment")
    one_line(cli("alerts", "ack", "late_flight/auc", "--why", "typo"), 2, "did you mean")
    configure(local, team="http://127.0.0.1:9/x")
    assert cli("alerts", "test").returncode == 1
    configure(local)
    done = cli("alerts", "test")
    assert done.returncode == 0 and "no channels" in done.stderr
