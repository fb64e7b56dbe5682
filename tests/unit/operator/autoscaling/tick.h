#pragma once

#include "operator/autoscaling/decide.h"

namespace quern::control {

using Field = PodCounters::Field;
constexpr Millis kTick = 2000;  // between two decisions of a test

}  // namespace quern::control
