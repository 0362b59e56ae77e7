/* What a tracee loads late. */
__attribute__((noinline)) long through(long (*call)(void))
{
	return call() + 1;
}
