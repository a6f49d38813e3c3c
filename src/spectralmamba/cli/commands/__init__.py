"""One module a command; `run` stands with `train`, whose options it takes."""
