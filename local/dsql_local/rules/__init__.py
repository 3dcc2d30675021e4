"""What DSQL accepts and refuses, as data and as pure functions of a statement's text."""
