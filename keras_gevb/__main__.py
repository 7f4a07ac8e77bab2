"""`python -m keras_gevb` is `keras-gevb`."""

import sys

from keras_gevb.cli import main

if __name__ == "__main__":
    sys.exit(main())
