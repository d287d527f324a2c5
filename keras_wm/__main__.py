"""`python -m keras_wm`."""

from keras_wm.cli import main

main()
