// A bundle that is open.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "interpreter.h"
#include "specbeam.h"

namespace inside {

// `specbeam.serve.embedded.Embedded`, shared by the engine's handle and the requests on their way.
class Engine {
 public:
  // Without the GIL, as all that is not said to need it.
  static std::shared_ptr<Engine> open(const char* path, const char* settings);

  // Throws `Failure` in a forked child, which does not have the thread that serves.
  void check_here() const;
  bool here() const noexcept;

  pybind11::handle python() const { return python_.get(); }
  std::size_t items() const;
  const char* item(std::int64_t place) const;
  void close(bool drain);

 private:
  Engine(const char* path, const char* settings);  // with the GIL

  Reference python_, item_ids_;
  const pid_t process_;
};

// A text, or several, checked. Throws `Failure`; what: how the message calls it, or them.
constexpr std::size_t WHOLE = static_cast<std::size_t>(-1);
pybind11::str text(const char* bytes, const char* what, std::size_t place = WHOLE);
pybind11::list texts(const char* const* bytes, std::size_t count, const char* what);

}  // namespace inside

struct specbeam_engine {
  std::shared_ptr<inside::Engine> shared;
};

struct specbeam_filter {
  std::shared_ptr<inside::Engine> engine;
  inside::Reference python;
};
