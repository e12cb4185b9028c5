"""ftlib: one YAML file and one command turn a base model and data into the best fine-tune of it, served."""

from ftlib.models import lean_peft

__version__ = "0.1.0"

lean_peft.install()
