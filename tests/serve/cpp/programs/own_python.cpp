// A host with an interpreter of its own, which it starts and ends: own_python PYTHON BUNDLE. Lists are asked for by
// threads that hold the GIL and by threads that do not, while Python's own threads run. Prints how many, and the items.
#include <Python.h>
#include <specbeam.hpp>

#include <atomic>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace {

const std::vector<std::string> ITEMS = {"1", "2", "7"};
std::atomic<int> listed{0}, told{0};

void start(const char* python) {
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  PyConfig_SetBytesString(&config, &config.program_name, python);
  const PyStatus status = Py_InitializeFromConfig(&config);
  PyConfig_Clear(&config);
  if (PyStatus_Exception(status)) Py_ExitStatusException(status);
  // Work of the host's, before and meanwhile.
  PyRun_SimpleString(
      "import json, threading, numpy\n"
      "over, turns = threading.Event(), []\n"
      "def work():\n"
      "    while not over.is_set():\n"
      "        turns.append(len(turns))\n"
      "        over.wait(0.0005)\n"
      "own = threading.Thread(target=work)\n"
      "own.start()\n");
}

std::string list(const specbeam::Engine& engine) {
  std::string text;
  for (const specbeam::Item& item : engine.recommend(ITEMS)) text.append(item.id).append(" ");
  ++listed;
  return text;
}

void same(const specbeam::Engine& engine, const std::string& expected) {
  for (int i = 0; i < 20; ++i) {
    if (list(engine) != expected) std::abort();
    const specbeam::Pending pending = engine.submit(ITEMS);
    pending.notify([] {
      const PyGILState_STATE state = PyGILState_Ensure();  // it may be taken where it ends
      PyRun_SimpleString("turns.append(-1)");
      PyGILState_Release(state);
      ++told;
    });
    pending.wait();
  }
}

void holding(const std::function<void()>& body) {
  const PyGILState_STATE state = PyGILState_Ensure();
  body();
  if (PyGILState_Check() != 1) std::abort();  // as it was
  PyGILState_Release(state);
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) return 2;
  start(words[1]);
  try {
    std::string expected;
    {
      const specbeam::Engine engine(words[2]);  // this thread holds the GIL
      expected = list(engine);
      same(engine, expected);
      PyThreadState* state = PyEval_SaveThread();
      std::vector<std::thread> threads;
      for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] { same(engine, expected); });
        threads.emplace_back([&] { holding([&] { same(engine, expected); }); });
      }
      for (std::thread& thread : threads) thread.join();
      PyEval_RestoreThread(state);
    }
    const int own = PyRun_SimpleString("over.set(); own.join(); assert len(turns) > 10 and turns.count(-1) > 100");
    std::printf("%d %d %d\n%s\n", listed.load(), told.load(), own, expected.c_str());
  } catch (const specbeam::Error& error) {
    std::fprintf(stderr, "%d: %s\n", error.status(), error.what());
    return 1;
  }
  return Py_FinalizeEx() == 0 ? 0 : 3;
}
