"""Recording: from stops of a tracee, and questions to the machine, to a trace's items."""
