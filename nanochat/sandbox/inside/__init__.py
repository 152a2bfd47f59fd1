"""What runs inside the sandbox: standard library only, imported by the helper process and never by ours."""
