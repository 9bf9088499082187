// keepalive_kernel()
#include "pg/postgres.hpp"

#include "kernel/kernel_settings.hpp"
#include "pg/functions/malloced.hpp"
#include "pg/functions/rows.hpp"

extern "C"
{
	PG_FUNCTION_INFO_V1(keepalive_kernel);
}

namespace guard::pg
{
namespace
{

constexpr Column kernel_columns[] = {
	{"name", TEXTOID},   {"setting", TEXTOID},     {"unit", TEXTOID},
	{"source", TEXTOID}, {"description", TEXTOID},
};

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_kernel(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, kernel_columns);

	PlainKernelSetting **settings = freed_with_context<PlainKernelSetting>();
	size_t count;
	*settings = plain_kernel_settings(&count);
	if (*settings == nullptr)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));

	for (size_t i = 0; i < count; i++)
	{
		const PlainKernelSetting &setting = (*settings)[i];
		RowValues<kernel_columns> row;
		row.add_text(setting.name);
		row.add_text(setting.setting);
		row.add_text(setting.unit);
		row.add_text(setting.source);
		row.add_text(setting.description);
		put_row(result, row);
	}
	return 0;
}
