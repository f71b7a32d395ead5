// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// `SerialState` as JSON: an older name of `state_json.hpp`, which supports all states.

#include <vmsuperio/serial_state.hpp>
#include <vmsuperio/state_json.hpp>
