// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/machine_table.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/device_manager.hpp>
#include <vmdevice/locked.hpp>
#include <vmsuperio/debug_port.hpp>

#include "catch.hpp"
#include "machines.hpp"

using namespace kvm_vmm;

namespace {

VmmConfig full_config() {
    VmmConfig config;
    config.serials.assign(max_serials, SerialConfig{});
    config.debug_console = SerialConfig{};
    config.exit_port = true;
    return config;
}

/// Whether `part` is one of `whole`; sizes and places are compared, as text.
std::string text_of(const vmdevice::ResourceConstraint& resource) {
    if (const auto* const io = std::get_if<vmdevice::PioConstraint>(&resource)) {
        return "pio " + std::to_string(io->base.value().value) + "+" + std::to_string(io->size);
    }
    if (const auto* const window = std::get_if<vmdevice::MmioConstraint>(&resource)) {
        return "mmio " + std::to_string(window->base.value().value) + "+" + std::to_string(window->size);
    }
    const auto& line = std::get<vmdevice::LegacyIrqConstraint>(resource);
    return "irq " + std::to_string(line.irq.value()) + "/" + std::to_string(static_cast<int>(line.sharing));
}
std::set<std::string> texts_of(const Resources& resources) {
    std::set<std::string> texts;
    std::ranges::transform(resources, std::inserter(texts, texts.end()), text_of);
    return texts;
}

}  // namespace

TEST_CASE("Machine table: names are unique, and each ACPI node lists resources of its device", "[machine]") {
    std::set<std::string> names;
    std::set<std::string> nodes;
    for (const MachineDevice& row : machine_table(full_config())) {
        const DeviceDescription& device = row.description;
        CAPTURE(device.name);
        CHECK(names.insert(device.name).second);
        CHECK_FALSE(device.title.empty());
        CHECK_FALSE(device.model.empty());
        CHECK_FALSE(device.resources.empty());
        for (const AcpiNode& node : device.acpi_nodes) {
            CHECK(nodes.insert(node.name).second);
            CHECK(node.name.size() == 4);
            CHECK(std::ranges::includes(texts_of(device.resources), texts_of(node.resources)));
        }
    }
    CHECK(nodes.contains("COM4"));
    CHECK(nodes.contains("MOU_"));
}

TEST_CASE("Machine table: the options decide which devices there are", "[machine]") {
    const auto names_of = [](const VmmConfig& config) {
        std::set<std::string> names;
        for (const MachineDevice& row : machine_table(config)) {
            names.insert(row.description.name);
        }
        return names;
    };
    const auto differs_by = [&names_of](const VmmConfig& config) {
        const std::set<std::string> all = names_of(full_config());
        const std::set<std::string> some = names_of(config);
        std::set<std::string> missing;
        std::ranges::set_difference(all, some, std::inserter(missing, missing.end()));
        return missing;
    };
    CHECK(differs_by(full_config()).empty());
    CHECK(differs_by(VmmConfig{}) ==
          std::set<std::string>{"COM2", "COM3", "COM4", "debug_console", "exit_port"});
    VmmConfig config = full_config();
    config.i8042 = vmsuperio::I8042Profile::absent;
    CHECK(differs_by(config) == std::set<std::string>{"i8042"});
}

TEST_CASE("Machine table: all resources fit on one machine without conflict, and are then allocated",
          "[machine]") {
    vmdevice::SystemAllocator allocator = make_allocator();
    vmdevice::DeviceManager manager(allocator);
    const auto table = machine_table(full_config());
    for (const MachineDevice& row : table) {
        CAPTURE(row.description.name);
        CHECK(manager.reserve(row.description.name, row.description.resources).has_value());
    }
    CHECK(manager.size() == table.size());
    CHECK(manager.owner(vmdevice::PioAddress{0x3FD})->name == "COM1");
    CHECK(manager.owner(vmdevice::PioAddress{0x61})->name == "8254");
    CHECK(manager.owner(vmdevice::PioAddress{0x64})->name == "i8042");
    CHECK(manager.owner(vmdevice::PioAddress{0x402})->name == "debug_console");
    CHECK_FALSE(manager.owner(vmdevice::PioAddress{0x62}));
    CHECK_FALSE(manager.owner(vmdevice::PioAddress{0xCF8}));
    CHECK(manager.irq_owners(4).size() == 2);
    CHECK(manager.irq_owners(9).size() == 1);
    // The ports of a device that KVM emulates cannot be reserved.
    const auto refused = manager.reserve("thief", {ports(vmdevice::pio_range(0x43, 1))});
    REQUIRE_FALSE(refused.has_value());
    CHECK_THAT(to_string(refused.error()), Catch::Matchers::Contains("8254"));
}

TEST_CASE("Machine table: the balloon follows the consoles and precedes the shares", "[machine]") {
    VmmConfig config = full_config();
    const auto order = [&config] {
        std::vector<std::string> names;
        for (const MachineDevice& row : machine_table(config)) {
            for (const std::string_view name : {"console0", "balloon0", "share0", "rng"}) {
                if (row.description.name == name) {
                    names.emplace_back(name);
                }
            }
        }
        return names;
    };
    config.rng = true;
    config.consoles = {SerialConfig{.kind = SerialConfig::Kind::null, .path = {}}};
    config.shares = {ShareConfig{.path = "/", .tag = "share0"}};
    config.balloon.reset();
    CHECK(order() == std::vector<std::string>{"console0", "share0", "rng"});
    config.balloon.emplace();
    CHECK(order() == std::vector<std::string>{"console0", "balloon0", "share0", "rng"});
}

namespace {

/// The full machine with `count` virtio devices, as rows of the table.
std::vector<MachineDevice> machine_with_virtio(std::size_t count) {
    VmmConfig config = full_config();
    config.rng = false;
    std::vector<MachineDevice> table = machine_table(config);
    std::vector<VirtioDevice> devices(count);
    for (std::size_t i = 0; i < count; ++i) {
        devices[i] = {.name = "virtio" + std::to_string(i), .title = "test", .model = "test", .create = {}};
    }
    place_virtio_devices(std::move(devices), table);
    return table;
}

std::uint64_t window_of(const MachineDevice& row) {
    return std::get<vmdevice::MmioConstraint>(row.description.resources.at(0)).base.value().value;
}
std::uint32_t line_of(const MachineDevice& row) {
    return std::get<vmdevice::LegacyIrqConstraint>(row.description.resources.at(1)).irq.value();
}

}  // namespace

TEST_CASE("Machine table: virtio devices get windows in their order, and interrupts of their own",
          "[machine]") {
    const auto fixed = machine_with_virtio(0);
    std::set<std::uint32_t> taken;
    for (const MachineDevice& row : fixed) {
        for (const vmdevice::ResourceConstraint& resource : row.description.resources) {
            if (const auto* const line = std::get_if<vmdevice::LegacyIrqConstraint>(&resource)) {
                taken.insert(line->irq.value());
            }
        }
    }
    const std::size_t free_lines = platform::ioapic_pins - taken.size();
    for (const std::size_t count :
         {std::size_t{1}, free_lines, free_lines + 1, std::size_t{20}, std::size_t{100}}) {
        CAPTURE(count);
        const auto table = machine_with_virtio(count);
        REQUIRE(table.size() == fixed.size() + count);
        std::map<std::uint32_t, std::size_t> devices_of_line;
        std::set<std::string> nodes;
        for (std::size_t i = 0; i < count; ++i) {
            const MachineDevice& row = table[fixed.size() + i];
            CHECK(row.description.name == "virtio" + std::to_string(i));
            CHECK(window_of(row) == 0xD000'0000 + 0x1000 * i);
            CHECK(taken.count(line_of(row)) == 0);
            ++devices_of_line[line_of(row)];
            CHECK(nodes.insert(row.description.acpi_nodes.at(0).name).second);
            CHECK(row.description.acpi_nodes.at(0).unique_id == i);
            CHECK(row.description.acpi_nodes.at(0).dma_coherent);
        }
        CHECK(devices_of_line.size() == std::min(count, free_lines));
        for (const auto& [line, devices] : devices_of_line) {
            CHECK(devices <= (count + free_lines - 1) / free_lines);
        }
        // What was planned can be registered.
        vmdevice::SystemAllocator allocator = make_allocator();
        vmdevice::DeviceManager manager(allocator);
        for (const MachineDevice& row : table) {
            CHECK(manager.reserve(row.description.name, row.description.resources).has_value());
        }
    }
}

TEST_CASE("Machine table: too many virtio devices are refused with one line", "[machine]") {
    CHECK(machine_with_virtio(max_virtio_devices).size() > max_virtio_devices);
    try {
        [[maybe_unused]] const auto table = machine_with_virtio(max_virtio_devices + 1);
        FAIL("accepted");
    } catch (const VmmError& error) {
        CHECK(error.code() == ExitCode::usage);
        CHECK(std::string(error.what()) ==
              "more than 256 virtio devices (disks, networks, shares and others)");
    }
}

TEST_CASE("Machine table: the manual's table of devices is this one", "[machine]") {
    std::ifstream file(KVM_VMM_MANUAL);
    const std::string manual{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const std::string table = to_markdown(machine_table(full_config()));
    INFO("examples/kvm_vmm/README.md must contain:\n" << table);
    CHECK(manual.find(table) != std::string::npos);
}
