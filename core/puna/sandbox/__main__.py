"""`python -m puna.sandbox`: answer requests on the socket that is standard input until it closes."""

from puna.sandbox.worker import main

if __name__ == "__main__":
    main()
