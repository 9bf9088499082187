#include "pg/postgres.hpp"

#include "pg/functions/stored_choices.hpp"

#include "pg/compat.hpp"
#include "pg/setting_records.hpp"

extern "C"
{
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_db_role_setting.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
}

namespace guard::pg
{
namespace
{

void take_stored(const char *assignment, Choices *choices)
{
	char *name;
	char *text;
	ParseLongOption(assignment, &name, &text);
	for (int i = 0; i < setting_count && text != nullptr; i++)
	{
		const char *wanted = setting_name(static_cast<Setting>(i));
		std::int32_t value;
		if (strcmp(name, wanted) == 0 &&
		    parse_int(text, &value, compat::find_setting(wanted)->flags, nullptr))
			(*choices)[i] = {value, true, false};
	}
	compat::free_long_option(name);
	compat::free_long_option(text);
}

void add_stored(Relation catalog, Oid database, Oid role, Choices *choices)
{
	ScanKeyData keys[2];
	ScanKeyInit(&keys[0], Anum_pg_db_role_setting_setdatabase, BTEqualStrategyNumber,
	            F_OIDEQ, ObjectIdGetDatum(database));
	ScanKeyInit(&keys[1], Anum_pg_db_role_setting_setrole, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(role));
	SysScanDesc scan = systable_beginscan(catalog, DbRoleSettingDatidRolidIndexId, true,
	                                      nullptr, 2, keys);
	while (HeapTuple tuple = systable_getnext(scan))
	{
		bool is_null;
		Datum config = heap_getattr(tuple, Anum_pg_db_role_setting_setconfig,
		                            RelationGetDescr(catalog), &is_null);
		if (is_null)
			continue;
		Datum *assignments;
		int count;
		deconstruct_array(DatumGetArrayTypeP(config), TEXTOID, -1, false, TYPALIGN_INT,
		                  &assignments, nullptr, &count);
		for (int i = 0; i < count; i++)
			take_stored(TextDatumGetCString(assignments[i]), choices);
	}
	systable_endscan(scan);
}

} // namespace

// In the order of process_settings() in postinit.c, the stronger ones last.
Choices stored_choices(const char *database_name, Oid role)
{
	Choices choices = {};
	if (database_name == nullptr)
		return choices;
	Oid database = get_database_oid(database_name, true);
	Relation catalog = table_open(DbRoleSettingRelationId, AccessShareLock);
	add_stored(catalog, InvalidOid, InvalidOid, &choices);
	if (OidIsValid(database))
		add_stored(catalog, database, InvalidOid, &choices);
	if (OidIsValid(role))
		add_stored(catalog, InvalidOid, role, &choices);
	if (OidIsValid(database) && OidIsValid(role))
		add_stored(catalog, database, role, &choices);
	table_close(catalog, AccessShareLock);
	return choices;
}

} // namespace guard::pg
