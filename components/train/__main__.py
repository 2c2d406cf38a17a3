"""One process of a training job, under torchrun; `run.main` says what it takes."""

from components.common.progress import reported
from components.train.run import main

if __name__ == "__main__":
    with reported("train"):
        main()
