"""The template sandbox: runs templates, which are programs by strangers, in processes that can be killed."""
