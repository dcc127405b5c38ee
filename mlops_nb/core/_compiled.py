"""numba's `njit`, with the compiled code kept on disk where it can be. Needs numba; imported only inside functions."""
from numba import njit as compiled

def njit(**how):
    "Where neither the installation nor the home can be written, as in many containers, each process compiles for itself."
    def made(f):
        try: return compiled(cache=True, **how)(f)
        except RuntimeError as e:
            if "no locator" not in str(e): raise
            return compiled(**how)(f)
    return made
