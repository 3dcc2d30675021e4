"""What all tests share."""

import os

# botocore's own signer is the reference; with awscrt installed it would hand the work to another one, whose query has
# another order.
os.environ["BOTO_DISABLE_CRT"] = "true"
