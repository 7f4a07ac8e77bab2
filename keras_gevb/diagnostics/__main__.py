"""`python -m keras_gevb.diagnostics certify model.keras`: the command `keras-gevb certify`."""

import sys

from keras_gevb import cli

if __name__ == "__main__":
    sys.exit(cli.main())
