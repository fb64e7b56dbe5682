#include "operator/controller/health.h"

namespace quern::control {
namespace {

void AddLine(HealthReport& report, const std::string& name, bool ok, const std::string& what) {
  report.ok = report.ok && ok;
  report.message += fmt::format("{}: {}\n", name, what);
}

}  // namespace

HealthReport Liveness(const std::vector<InformerHealth>& informers, const HealthOptions& options) {
  HealthReport report;
  for (const InformerHealth& informer : informers) {
    const bool ok = informer.since_contact <= options.max_silence;
    const double silence = Seconds(informer.since_contact).count();
    AddLine(report, "informer " + informer.resource, ok,
            ok ? "ok"
               : fmt::format("nothing heard for {:.0f} s, allowed are {} s; last error: {}",
                             silence, options.max_silence.count(),
                             informer.last_error.empty() ? "none" : informer.last_error));
  }
  return report;
}

HealthReport Readiness(const std::vector<InformerHealth>& informers, bool is_leader,
                       const std::string& holder) {
  HealthReport report;
  for (const InformerHealth& informer : informers) {
    AddLine(report, "informer " + informer.resource, informer.synced,
            informer.synced ? fmt::format("ok, {} objects", informer.objects)
                            : "not listed yet" +
                                  (informer.last_error.empty() ? "" : ": " + informer.last_error));
  }
  AddLine(report, "leader", true, is_leader ? "this one" : (holder.empty() ? "nobody" : holder));
  return report;
}

}  // namespace quern::control
