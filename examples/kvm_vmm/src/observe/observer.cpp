// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observe/observer.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "util/log.hpp"
#include "util/text.hpp"

namespace kvm_vmm {
namespace {

// A guest may probe all ports; no user reads more messages than this.
constexpr unsigned unclaimed_log_limit = 200;

using Json = nlohmann::ordered_json;

Json exits_json(const IoMetrics& metrics) {
    Json json;
    std::uint64_t total = 0;
    for (std::size_t kind = 0; kind < IoMetrics::exit_kinds; ++kind) {
        const std::uint64_t count = metrics.exits(kind);
        json[std::string(IoMetrics::exit_name(kind))] = count;
        total += count;
    }
    json["total"] = total;
    return json;
}

Json ports_json(const IoMetrics& metrics, const DeviceDirectory& devices) {
    Json json = Json::object();
    metrics.for_each_port([&](std::uint16_t port, const AccessCounts& counts) {
        const ObservedDevice* const device = devices.find_port(port, 1);
        json[hex(port, 4)] = {{"device", device == nullptr ? Json() : Json(device->name)},
                              {"reads", counts.reads},
                              {"writes", counts.writes},
                              {"unclaimed", counts.unclaimed}};
    });
    return json;
}

Json devices_json(const IoMetrics& metrics, const DeviceDirectory& devices) {
    std::map<const ObservedDevice*, AccessCounts> ports;
    metrics.for_each_port(
        [&](std::uint16_t port, const AccessCounts& counts) { ports[devices.find_port(port, 1)] += counts; });
    Json json = Json::object();
    for (const ObservedDevice& device : devices.devices()) {
        const AccessCounts counts = ports[&device];
        json[device.name] = {{"port_reads", counts.reads},
                             {"port_writes", counts.writes},
                             {"mmio_reads", device.mmio_reads.load(std::memory_order_relaxed)},
                             {"mmio_writes", device.mmio_writes.load(std::memory_order_relaxed)},
                             {"errors", device.errors.load(std::memory_order_relaxed)}};
    }
    return json;
}

Json unclaimed_json(const IoMetrics& metrics) {
    std::uint64_t ports = 0;
    metrics.for_each_port([&](std::uint16_t, const AccessCounts& counts) { ports += counts.unclaimed; });
    const AccessCounts mmio = metrics.unclaimed_mmio();
    return {{"port_accesses", ports}, {"mmio_reads", mmio.reads}, {"mmio_writes", mmio.writes}};
}

Json serial_json(const vmsuperio::SerialCounts& counts) {
    return {{"bytes_in", counts.bytes_read},
            {"bytes_out", counts.bytes_written},
            {"bytes_lost", counts.bytes_lost},
            {"bytes_dropped", counts.bytes_dropped},
            {"overruns", counts.overruns},
            {"interrupts", counts.interrupts},
            {"breaks", counts.breaks},
            {"fifo_resets", counts.fifo_resets},
            {"invalid_accesses", counts.invalid_accesses},
            {"trigger_failures", counts.trigger_failures}};
}

}  // namespace

Observer::Observer(Outputs outputs, std::optional<LogLevel> log_level) {
    open_log(outputs.log ? outputs.log->take_descriptor() : vmsuperio::UniqueFd(), log_level);
    if (outputs.trace_io) {
        trace_ = std::make_unique<IoTrace>(std::move(*outputs.trace_io), devices_, start_);
    }
    if (outputs.metrics) {
        metrics_file_.emplace(std::move(*outputs.metrics));
        // Write the file now, so that a mistake is detected before the VM has run for a week.
        metrics_file_->write(metrics_json());
    }
}

std::shared_ptr<vmsuperio::SerialMetrics> Observer::serial(std::string_view name) {
    const auto found = std::ranges::find(serials_, name, [](const auto& entry) { return entry.first; });
    if (found != serials_.end()) {
        return found->second;
    }
    return serials_.emplace_back(name, std::make_shared<vmsuperio::SerialMetrics>()).second;
}

Counters& Observer::counters(std::string_view name) {
    const auto found = std::ranges::find(counters_, name, [](const auto& entry) { return entry.first; });
    if (found != counters_.end()) {
        return found->second;
    }
    return counters_
        .emplace_back(std::piecewise_construct, std::forward_as_tuple(name), std::forward_as_tuple())
        .second;
}

void Observer::count_mmio(const IoAccess& access, bool claimed) {
    ObservedDevice* const device = claimed ? devices_.find_mmio(access.address, access.width) : nullptr;
    if (device != nullptr) {
        (access.write ? device->mmio_writes : device->mmio_reads).fetch_add(1, std::memory_order_relaxed);
    } else if (!claimed && metrics_.count_unclaimed_mmio(access.write)) {
        note_unclaimed(access);
    }
}

void Observer::note_unclaimed(const IoAccess& access) {
    if (!log_enabled(LogLevel::debug) ||
        unclaimed_logged_.fetch_add(1, std::memory_order_relaxed) >= unclaimed_log_limit) {
        return;
    }
    const bool pio = access.bus == IoAccess::Bus::pio;
    log_unlimited(LogLevel::debug, std::string("no device at ") + (pio ? "port " : "address ") +
                                       hex(access.address, 4) + ": a " + (access.write ? "write" : "read") +
                                       " of width " + std::to_string(access.width));
}

std::string Observer::metrics_json(std::optional<int> exit_status) const {
    const std::chrono::duration<double> run_time = std::chrono::steady_clock::now() - start_;
    Json json;
    json["version"] = 1;
    json["run_time_seconds"] = run_time.count();
    json["exit_code"] = exit_status ? Json(*exit_status) : Json();
    json["vms_started"] = vms_started_;
    json["exits"] = exits_json(metrics_);
    json["coalesced_writes"] = metrics_.coalesced();
    json["unclaimed"] = unclaimed_json(metrics_);
    json["devices"] = devices_json(metrics_, devices_);
    json["serial"] = Json::object();
    for (const auto& [name, metrics] : serials_) {
        json["serial"][name] = serial_json(metrics->counts());
    }
    json["virtio"] = Json::object();
    for (const auto& [name, counters] : counters_) {
        Json& entry = json["virtio"][name] = Json::object();
        counters.for_each(
            [&entry](const std::string& counter, std::uint64_t value) { entry[counter] = value; });
    }
    json["ports"] = ports_json(metrics_, devices_);
    return json.dump(2) + "\n";
}

void Observer::flush(std::optional<int> exit_status) {
    try {
        if (trace_) {
            trace_->flush();
        }
        if (metrics_file_) {
            metrics_file_->write(metrics_json(exit_status));
        }
    } catch (const std::exception& error) {
        log(LogLevel::error, error.what());
    }
}

}  // namespace kvm_vmm
