// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observe/io_metrics.hpp"

#include <memory>
#include <new>
#include <type_traits>

namespace kvm_vmm {
namespace {

// In the order of VcpuExit.
constexpr std::array<std::string_view, IoMetrics::exit_kinds> exit_names{
    "port_read", "port_write",   "mmio_read",  "mmio_write",     "resume", "halt",
    "shutdown",  "system_event", "fail_entry", "internal_error", "unknown"};
static_assert(std::is_same_v<std::variant_alternative_t<0, VcpuExit>, exits::PortRead>);
static_assert(std::is_same_v<std::variant_alternative_t<3, VcpuExit>, exits::MmioWrite>);
static_assert(std::is_same_v<std::variant_alternative_t<6, VcpuExit>, exits::Shutdown>);
static_assert(std::is_same_v<std::variant_alternative_t<10, VcpuExit>, exits::Unknown>);

}  // namespace

IoMetrics::~IoMetrics() {
    for (const std::atomic<Page*>& page : pages_) {
        const std::unique_ptr<Page> owned(page.load());
    }
}

IoMetrics::Page* IoMetrics::add_page(std::size_t index) noexcept {
    std::unique_ptr<Page> fresh(new (std::nothrow) Page{});
    if (!fresh) {
        return nullptr;  // the count is lost; the guest continues
    }
    Page* page = nullptr;
    if (pages_.at(index).compare_exchange_strong(page, fresh.get(), std::memory_order_acq_rel)) {
        page = fresh.release();
    }
    return page;  // that of another CPU, if that was first
}

std::string_view IoMetrics::exit_name(std::size_t kind) noexcept { return exit_names.at(kind); }

AccessCounts IoMetrics::port(std::uint16_t port) const noexcept {
    const Page* const page = pages_.at(port / page_ports).load(std::memory_order_acquire);
    return page == nullptr ? AccessCounts{} : counts(page->at(port % page_ports));
}

}  // namespace kvm_vmm
