"""`python -m metarestore`."""

from metarestore.cli import main

if __name__ == "__main__":
    main()
