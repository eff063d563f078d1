// The structs that callers hand over, checked: they may be of an older or a newer header than this library.
#pragma once

#include "specbeam.h"

namespace inside {

// A copy, in this library's size; NULL: the defaults. Throws `Failure`.
specbeam_options asked(const specbeam_options* options);
specbeam_ask asked(const specbeam_ask* ask);

}  // namespace inside
