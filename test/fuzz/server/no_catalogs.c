/*
 * With AddressSanitizer preloaded, PostgreSQL would wait in bindtextdomain(), for a lock
 * that nobody holds.  Preloaded as well, this keeps it from looking for translations.
 */
char *bindtextdomain(const char *domain, const char *directory);
char *bindtextdomain(const char *domain, const char *directory)
{
	(void)domain;
	return (char *)directory;
}
