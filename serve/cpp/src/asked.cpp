#include "asked.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

#include "failure.h"

namespace inside {
namespace {

// Of ABI 1's first header, whatever is added behind these fields.
constexpr std::size_t OPTIONS_1 = offsetof(specbeam_options, settings) + sizeof(specbeam_options::settings);
constexpr std::size_t ASK_1 = offsetof(specbeam_ask, verification) + sizeof(specbeam_ask::verification);

specbeam_options defaults(const specbeam_options*) { return {sizeof(specbeam_options), nullptr, nullptr}; }

specbeam_ask defaults(const specbeam_ask*) {
  return {sizeof(specbeam_ask), 20, nullptr, nullptr, 0, 0, 0.0, nullptr};
}

template <typename Struct>
Struct copied(const Struct* told, std::size_t least, const char* name) {
  Struct own = defaults(told);
  if (told == nullptr) return own;
  if (told->size < least) {
    throw Failure{SPECBEAM_INVALID, std::string(name) + ".size is " + std::to_string(told->size) +
                                        ", expected at least " + std::to_string(least) + ": fill it by " + name +
                                        "_default before anything is changed."};
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(told);
  const auto said = [](unsigned char byte) { return byte != 0; };
  if (told->size > sizeof(Struct) && std::any_of(bytes + sizeof(Struct), bytes + told->size, said)) {
    throw Failure{SPECBEAM_INVALID, std::string(name) + " has fields that this library (" SPECBEAM_VERSION
                                        ") does not know. Build with its own header, or update it."};
  }
  std::memcpy(&own, told, std::min(told->size, sizeof(Struct)));
  own.size = sizeof(Struct);
  return own;
}

template <typename Struct>
void fill(Struct* given, std::size_t size) noexcept {
  if (given == nullptr || size < sizeof(given->size)) return;
  const Struct own = defaults(given);
  std::memset(static_cast<void*>(given), 0, size);
  std::memcpy(static_cast<void*>(given), &own, std::min(size, sizeof(Struct)));
  given->size = size;
}

}  // namespace

specbeam_options asked(const specbeam_options* options) { return copied(options, OPTIONS_1, "specbeam_options"); }
specbeam_ask asked(const specbeam_ask* ask) { return copied(ask, ASK_1, "specbeam_ask"); }

}  // namespace inside

extern "C" {

void specbeam_options_init(specbeam_options* options, size_t size) { inside::fill(options, size); }
void specbeam_ask_init(specbeam_ask* ask, size_t size) { inside::fill(ask, size); }

}  // extern "C"
