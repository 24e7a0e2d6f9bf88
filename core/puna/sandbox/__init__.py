"""The template sandbox: runs templates, which are untrusted programs, in processes that can be killed."""
