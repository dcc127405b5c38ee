"The stages of the life cycle as papermill notebooks; shipped as the package `mlops_nb.workflows`."
