// What the kernel and the watcher say of a connection: any numbers.
#include "values.hpp"

#include "model/cause.hpp"
#include "model/idle_path.hpp"
#include "model/verdict.hpp"

using namespace guard;
using namespace guard::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);
	const KernelLimits limits = kernel_limits(input);
	const DetectionSettings settings = detection_settings(input);
	const Detection found = detection(settings, limits, input.between(1, 120000));
	for (const Span &span : {found.idle, found.working, found.in_flight, found.busy,
	                         found.stalled, found.late_write})
		require(in_order(span));

	ConnectionSnapshot snapshot{};
	snapshot.state = static_cast<TcpState>(input.any<std::uint8_t>());
	snapshot.timer = timer_of(input.any<std::uint8_t>());
	snapshot.expires = input.any<std::uint32_t>();
	snapshot.retransmits = input.any<std::uint8_t>();
	snapshot.probes = input.any<std::uint8_t>();
	snapshot.backoff = input.any<std::uint8_t>();
	snapshot.rto = input.any<std::uint32_t>() / 1000;
	snapshot.unacked = input.any<std::uint32_t>();
	snapshot.retransmitted = input.any<std::uint32_t>();
	snapshot.last_data_sent = duration(input);
	snapshot.last_data_recv = input.any<std::uint32_t>();
	snapshot.last_ack_recv = input.any<std::uint32_t>();
	if (input.flag())
		snapshot.snd_wnd = input.any<std::uint32_t>();
	snapshot.since_first_timeout = duration(input);
	snapshot.answered_probes = input.any<std::uint8_t>();
	snapshot.asked_for = duration(input);
	snapshot.stalled_for = duration(input);
	const Verdict now = verdict(snapshot, settings, limits);
	require(health_name(now.health) != nullptr);
	require(in_order(now.gives_up_in));
	require(!now.gives_up_in.earliest || *now.gives_up_in.earliest >= 0);
	asking(snapshot, settings, limits);

	const auto bytes = input.any<std::array<std::uint8_t, sizeof(TcpInfo)>>();
	Evidence evidence{};
	evidence.end = static_cast<SessionEnd>(input.between(0, 5));
	evidence.terminated_by = static_cast<TerminatedBy>(input.between(0, 4));
	evidence.authentication = input.flag();
	evidence.tcp = input.flag();
	evidence.fin_received = input.flag();
	evidence.data_pending = input.flag();
	evidence.socket_error = input.between(0, 140);
	evidence.error_not_told = input.flag();
	evidence.user_timeout_ms = input.any<std::int32_t>();
	evidence.retries2 = limits.tcp_retries2;
	evidence.info =
		decode_tcp_info(bytes.data(), input.between<std::size_t>(0, bytes.size()));
	require(cause_name(cause_of(evidence)) != nullptr);
	since_first_timeout(evidence.info);

	IdlePath path{};
	for (Millis *ms : {&path.quiet, &path.options_changed, &path.silent})
		*ms = input.any<std::uint32_t>();
	path.keepalive_idle = 1000 * input.between(0, 32767);
	path.unanswered = input.any<std::uint8_t>();
	path.end = static_cast<PathEnd>(input.between(0, 3));
	require(path_evidence(path).idle_for >= 0);
	return 0;
}
