// Rows of keepalive_policy, and of tables that look like it: columns that are missing,
// renamed or of another type, and any values.
#include "target.hpp"

#include "pg/policy/row.hpp"
#include "pg/policy/table.hpp"

#include "rows.hpp"

extern "C"
{
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "utils/rel.h"
}

namespace guard::pg::fuzz
{
namespace
{

TupleDesc policy_columns = nullptr;

void begin()
{
	Relation table = table_open(policy_table(), AccessShareLock);
	policy_columns = CreateTupleDescCopy(RelationGetDescr(table));
	table_close(table, AccessShareLock);
}

void change_column(TupleDesc columns, Input &input)
{
	constexpr Oid types[] = {TEXTOID, INT4OID, BOOLOID, INTERVALOID, CIDROID};
	Form_pg_attribute column =
		TupleDescAttr(columns, input.between(0, columns->natts - 1));
	switch (input.between(0, 2))
	{
	case 0:
		column->attisdropped = true;
		break;
	case 1:
		namestrcpy(&column->attname, any_bytes(input, NAMEDATALEN - 1));
		break;
	default:
		TupleDescInitEntry(columns, column->attnum, pstrdup(NameStr(column->attname)),
		                   types[input.between(0, int(lengthof(types)) - 1)], -1, 0);
	}
}

void check(const PolicyRow &row)
{
	const Policy &policy = row.policy;
	require(policy.name[0] != '\0' && ends(policy.name));
	require(ends(policy.database) && ends(policy.role));
	require((row.rule.database == PatternKind::any) == (policy.database[0] == '\0'));
	require((row.rule.role == PatternKind::any) == (policy.role[0] == '\0'));
	require(row.rule.database != PatternKind::group);
	require(row.rule.database == PatternKind::regex ||
	        strlen(policy.database) < name_bytes);
	require(row.rule.role == PatternKind::regex || strlen(policy.role) < name_bytes);
	const Network &client = row.rule.client;
	require(client.family == 0 || (client.family == 4 && client.bits <= 32) ||
	        (client.family == 6 && client.bits <= 128));
	constexpr std::int32_t most[item_count] = {
		32767, 32767, 127, PG_INT32_MAX, PG_INT32_MAX, 1, PG_INT32_MAX, PG_INT32_MAX};
	for (int item = 0; item < item_count; item++)
		if (policy.settings.has(item))
			require(policy.settings.value[item] >= 0 &&
			        policy.settings.value[item] <= most[item]);
		else
			require(policy.settings.value[item] == 0);
	require(enforcement_name(policy.settings.enforcement) != nullptr);
}

void check(const RowProblem &problem, const PolicyRow &row)
{
	require(problem.column != nullptr && problem.value != nullptr &&
	        problem.detail != nullptr);
	for (const char *text : {problem.value, problem.detail, row.policy.name + 0})
		require(pg_verifymbstr(text, strlen(text), true));
	require(ends(row.policy.name));
}

void run(Input &input)
{
	TupleDesc columns = CreateTupleDescCopy(policy_columns);
	for (int changes = input.between(0, 3) - 1; changes > 0; changes--)
		change_column(columns, input);
	HeapTuple tuple = any_row(input, columns);

	PolicyColumns found;
	const char *unusable = nullptr;
	if (!find_policy_columns(columns, &found, &unusable))
	{
		require(unusable != nullptr);
		return;
	}
	PolicyRow row;
	RowProblem problem = {};
	if (read_policy_row(tuple, columns, found, &row, &problem))
		check(row);
	else
		check(problem, row);
}

} // namespace

extern const Target row_target = {"row", false, begin, run};

} // namespace guard::pg::fuzz
