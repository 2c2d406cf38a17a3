"""`python -m components.pretrain`, also under torchrun."""

from components.pretrain.run import main

main()
