// keepalive_kernel()
#include "pg/postgres.hpp"

#include "kernel/kernel_settings.hpp"
#include "pg/functions/datums.hpp"
#include "pg/functions/malloced.hpp"

extern "C"
{
#include "funcapi.h"

	PG_FUNCTION_INFO_V1(keepalive_kernel);
}

extern "C" PGDLLEXPORT Datum keepalive_kernel(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	constexpr int kernel_columns = 5;

	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);

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
		tuplestore_putvalues(result->setResult, result->setDesc, row.values, row.nulls);
	}
	return 0;
}
