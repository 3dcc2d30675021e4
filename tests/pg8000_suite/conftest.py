"""pg8000's tests are run by ours, each time in a process of their own: they are not collected here."""

collect_ignore = ["vendored"]
