// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The state of every device as JSON, for programs that use nlohmann-json. Only `serial_json.hpp` includes
/// this header.
///
/// ```cpp
/// const nlohmann::json json = device.state();
/// const auto state = json.get<vmsuperio::I8042State>();
/// ```
///
/// A state is an object with "version" and each member under the name that the state's `visit` gives it:
/// numbers and enumerations as numbers, booleans as booleans, arrays and queues of bytes as arrays of numbers
/// (a queue without unused slots), a state within the state as an object. With `nlohmann::ordered_json` the
/// members are in the order of `visit`. Numbers of 64 bits are written in full; a reader that stores numbers
/// as `double` loses digits of those above 2^53.
///
/// For a state type outside namespace vmsuperio, name both functions in the type's own namespace, where
/// nlohmann-json looks for them:
/// ```cpp
/// namespace mine {
/// struct TimerState { /* satisfies vmsuperio::SnapshotState */ };
/// using vmsuperio::from_json;
/// using vmsuperio::to_json;
/// }  // namespace mine
/// ```

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <vmsuperio/snapshot.hpp>

namespace vmsuperio::inline v0_2 {

namespace detail {

/// A specialization of nlohmann::basic_json.
template <class Json>
concept BasicJson = requires(const Json& source) {
    typename Json::object_t;
    typename Json::number_unsigned_t;
    { source.is_number_unsigned() } -> std::same_as<bool>;
};

/// Writes the members of a state to an object.
template <BasicJson Json>
class JsonWriter : public NamedArchive<JsonWriter<Json>> {
public:
    /// `object` must outlive this one.
    explicit JsonWriter(Json& object) : object_(&object) {}

    template <class T, class... Meaning>
    void operator()(std::string_view name, const T& value, Meaning...) {
        if constexpr (requires { T::visit(value, *this); }) {
            nested(name, [&](JsonWriter& archive) { T::visit(value, archive); });
        } else {
            member(name) = json_of(value);
        }
    }
    template <std::size_t N>
    void bytes(std::string_view name, std::uint8_t count, const std::array<std::uint8_t, N>& data) {
        Json array = Json::array();
        for (std::size_t i = 0; i < N && i < count; ++i) {
            array.push_back(data[i]);
        }
        member(name) = std::move(array);
    }
    template <std::size_t N>
    void bytes(std::string_view name, const std::array<std::uint8_t, N>& data, std::uint8_t count) {
        bytes(name, count, data);
    }
    /// Uses the same object again if `name` was visited before.
    template <class Visitor>
    void nested(std::string_view name, Visitor&& visitor) {
        Json& object = member(name);
        if (object.is_null()) {
            object = Json::object();
        }
        JsonWriter archive(object);
        std::forward<Visitor>(visitor)(archive);
    }

private:
    [[nodiscard]] Json& member(std::string_view name) { return (*object_)[std::string(name)]; }

    template <SnapshotScalar T>
    [[nodiscard]] static Json json_of(T value) {
        if constexpr (std::is_enum_v<T>) {
            return Json(std::to_underlying(value));
        } else {
            return Json(value);
        }
    }
    template <class T, std::size_t N>
    [[nodiscard]] static Json json_of(const std::array<T, N>& values) {
        Json array = Json::array();
        for (const T& value : values) {
            array.push_back(json_of(value));
        }
        return array;
    }

    Json* object_;
};

/// Reads the members of a state from an object; members that it lacks do not change.
template <BasicJson Json>
class JsonReader : public NamedArchive<JsonReader<Json>> {
public:
    /// `source` must outlive this one. Throws nlohmann's type_error if it is not an object. `path` is its
    /// position, for messages.
    explicit JsonReader(const Json& source, std::string path = {})
        : object_(&source.template get_ref<const typename Json::object_t&>()), path_(std::move(path)) {}

    template <class T, class... Meaning>
    void operator()(std::string_view name, T& value, Meaning...) {
        if constexpr (requires { T::visit(value, *this); }) {
            nested(name, [&](JsonReader& archive) { T::visit(value, archive); });
        } else if (const Json* const source = find(name); source != nullptr) {
            read(*source, name, value);
        }
    }
    template <std::size_t N>
    void bytes(std::string_view name, std::uint8_t& count, std::array<std::uint8_t, N>& data) {
        static_assert(N <= 0xFF);
        const Json* const source = find(name);
        if (source == nullptr) {
            return;
        }
        if (!source->is_array() || source->size() > N) {
            refuse("not an array of up to " + std::to_string(N) + " bytes", name);
        }
        data = {};
        for (std::size_t i = 0; i < source->size(); ++i) {
            read((*source)[i], name, data[i]);
        }
        count = static_cast<std::uint8_t>(source->size());
    }
    template <std::size_t N>
    void bytes(std::string_view name, std::array<std::uint8_t, N>& data, std::uint8_t& count) {
        bytes(name, count, data);
    }
    template <class Visitor>
    void nested(std::string_view name, Visitor&& visitor) {
        if (const Json* const source = find(name); source != nullptr) {
            JsonReader archive(*source, path_ + std::string(name) + ".");
            std::forward<Visitor>(visitor)(archive);
        }
    }

private:
    [[nodiscard]] const Json* find(std::string_view name) const {
        const auto found = object_->find(std::string(name));
        return found == object_->end() ? nullptr : &found->second;
    }
    [[noreturn]] void refuse(const std::string& what, std::string_view name) const {
        throw std::out_of_range("vmsuperio: " + what + ": " + path_ + std::string(name));
    }

    template <SnapshotScalar T>
    void read(const Json& source, std::string_view name, T& value) const {
        if constexpr (std::is_enum_v<T>) {
            auto number = std::to_underlying(value);
            read(source, name, number);
            value = static_cast<T>(number);
        } else if constexpr (std::same_as<T, bool>) {
            value = source.template get<bool>();
        } else {
            // get<T>() would convert 300 to 44, -1 to 255 and 1.5 to 1.
            const bool is_unsigned = source.is_number_unsigned();
            if (!source.is_number_integer() ||
                !(is_unsigned ? std::in_range<T>(source.template get<typename Json::number_unsigned_t>())
                              : std::in_range<T>(source.template get<typename Json::number_integer_t>()))) {
                refuse("out of range", name);
            }
            value = source.template get<T>();
        }
    }
    template <class T, std::size_t N>
    void read(const Json& source, std::string_view name, std::array<T, N>& values) const {
        if (!source.is_array() || source.size() != N) {
            refuse("not an array of " + std::to_string(N), name);
        }
        for (std::size_t i = 0; i < N; ++i) {
            read(source[i], name, values[i]);
        }
    }

    const typename Json::object_t* object_;
    std::string path_;
};

}  // namespace detail

/// Found by nlohmann-json: `nlohmann::json json = state;`
template <detail::BasicJson Json, SnapshotState S>
void to_json(Json& target, const S& state) {
    target = Json::object();
    detail::JsonWriter<Json> archive(target);
    archive("version", SnapshotFormat(S::snapshot_format).version);
    S::visit(state, archive);
}

/// Found by nlohmann-json: `json.get<SerialState>()`. Missing members keep their defaults, unknown ones are
/// ignored. Throws nlohmann-json's exception if a value is not an object or a boolean where one is required,
/// and `std::out_of_range` for values that are not numbers or do not fit, for arrays of another length and
/// for a version newer than this one's. `state` is unchanged then. Each device's `from_state` checks whether
/// the values are valid.
template <detail::BasicJson Json, SnapshotState S>
void from_json(const Json& source, S& state) {
    constexpr SnapshotFormat format = S::snapshot_format;
    detail::JsonReader<Json> archive(source);
    std::uint16_t version = format.version;
    archive("version", version);
    if (version > format.version) {
        throw std::out_of_range("vmsuperio: the state's version " + std::to_string(version) +
                                " is newer than " + std::to_string(format.version));
    }
    S read{};
    S::visit(read, archive);
    state = read;
}

}  // namespace vmsuperio::inline v0_2
