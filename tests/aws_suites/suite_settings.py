"""The settings of the Django adapter's own tests, with the local DSQL's port in place of 5432."""

import os

from aurora_dsql_django.tests.test_settings import *  # noqa: F403
from aurora_dsql_django.tests.test_settings import DATABASES

DATABASES["default"]["PORT"] = os.environ["PGPORT"]
