// A request on its way, and who is told when it has ended.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>

#include "engine.h"
#include "interpreter.h"
#include "list.h"
#include "specbeam.h"

namespace inside {

// What the thread that serves tells; outlives the handle if it must.
class Ending {
 public:
  void end();  // with the GIL
  bool ended() const;
  // Milliseconds, less than 0: as long as it takes. Whether it has ended.
  bool wait(double timeout_ms) const;
  void notify(void (*call)(void*), void* data);

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable over_;
  bool ended_ = false, noted_ = false;
  void (*call_)(void*) = nullptr;
  void* data_ = nullptr;
};

// The function that a future calls once it has ended; the GIL is held.
pybind11::object ending_call(std::shared_ptr<Ending> ending);

}  // namespace inside

struct specbeam_pending {
  std::shared_ptr<inside::Engine> engine;
  std::shared_ptr<inside::Ending> ending;
  inside::Reference future;
  std::mutex reading;
  std::shared_ptr<const inside::List> list;  // once somebody has waited for it

  specbeam_result* result();  // once it has ended
};

struct specbeam_result {
  std::shared_ptr<const inside::List> list;
};
