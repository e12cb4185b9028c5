"""Several models that become one: adapters by PEFT, whole models tensor by tensor."""
