"""`python -m kdp`."""

from kdp.cli import main

if __name__ == "__main__":
    main()
