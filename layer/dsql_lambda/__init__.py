"""Aurora DSQL transactions for AWS Lambda functions in Python."""
