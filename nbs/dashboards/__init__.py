"The Voila pages; shipped as the package `mlops_nb.dashboards`."
