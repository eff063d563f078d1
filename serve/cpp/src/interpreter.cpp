#include "interpreter.h"

#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>

#include "failure.h"

namespace py = pybind11;
namespace fs = std::filesystem;

namespace inside {
namespace {

const std::string VERSION = std::to_string(PY_MAJOR_VERSION) + "." + std::to_string(PY_MINOR_VERSION);

std::mutex starting;
pid_t started_in = 0;          // 0: not yet; else the process in which this library has started the interpreter
std::string executable;        // of the interpreter that was started
std::string broken;            // why none can be: what has failed half-way cannot be tried again
PyObject* package = nullptr;   // specbeam.serve.embedded; never let go

[[noreturn]] void fail(const std::string& message) { throw Failure{SPECBEAM_PYTHON, message}; }

// Where to find `python`, from what is told of an environment.
fs::path python_of(const char* told) {
  const auto unsaid = [](const char* text) { return text == nullptr || *text == '\0'; };
  if (unsaid(told)) told = std::getenv("SPECBEAM_PYTHON");
  if (unsaid(told)) told = SPECBEAM_DEFAULT_PYTHON;
  std::error_code ignored;
  fs::path path(told);
  if (fs::is_directory(path, ignored)) {
    const fs::path bin = path.filename() == "bin" ? path : path / "bin";
    path = fs::exists(bin / "python", ignored) ? bin / "python" : bin / "python3";
  }
  const bool runs = fs::is_regular_file(path, ignored) && access(path.c_str(), X_OK) == 0;
  if (!runs || path.filename().string().rfind("python", 0) != 0) {
    fail(path.string() + (fs::exists(path, ignored) ? " is no `python` that runs" : " does not exist") +
         "; expected the `python` of an environment that has specbeam. Name it, or the environment's folder, in the "
         "options or in SPECBEAM_PYTHON.");
  }
  return fs::absolute(path);
}

// An interpreter of another version cannot be started: this library is linked to one.
void check_version(const fs::path& python) {
  const fs::path prefix = python.parent_path().parent_path();
  std::error_code ignored;
  for (const char* lib : {"lib", "lib64"}) {
    if (fs::is_directory(prefix / lib / ("python" + VERSION), ignored)) return;
  }
  fail(python.string() + " is not in an environment of Python " + VERSION + ", which this library was built for: there "
       "is no " + (prefix / "lib" / ("python" + VERSION)).string() + ". Name the folder of one, or its own `python` (a "
       "launcher that starts another, such as pyenv's, is none), or build the library for the other version: "
       "-DPython_EXECUTABLE=" + python.string() + ".");
}

// In a child that was forked after the interpreter had been started, a thread that is not there may hold its lock.
void check_not_forked() {
  if (started_in == 0 || started_in == getpid()) return;
  fail("this process was forked from process " + std::to_string(started_in) +
       ", which has started Python: it cannot be used here. Fork first and open bundles then, or start a program.");
}

// Modules of Python in C are not linked to libpython: they find it only if all of this process do.
void show_to_all() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&Py_IsInitialized), &info) != 0 && info.dli_fname != nullptr) {
    dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
  }
}

void check(const PyStatus& status) {
  if (!PyStatus_Exception(status)) return;
  broken = "Python cannot be started in " + executable + ": " +
           (status.err_msg != nullptr ? status.err_msg : "it says not why") + ".";
  if (const char* home = std::getenv("PYTHONHOME")) {
    broken += std::string(" The variable PYTHONHOME is ") + home + ": unset it, or let it name that Python's folder.";
  }
  fail(broken);
}

// Python's module of signals takes SIGINT when it is imported, whatever the configuration says: asyncio imports it.
void import_signals() {
  struct sigaction before;
  sigaction(SIGINT, nullptr, &before);
  const py::object module = py::reinterpret_steal<py::object>(PyImport_ImportModule("_signal"));
  sigaction(SIGINT, &before, nullptr);
  if (!module) PyErr_Clear();  // whoever needs it says so
}

// The host's signals, locale and arguments stay its own; the variables that Python knows are honoured.
void initialize() {
  PyPreConfig before;
  PyPreConfig_InitIsolatedConfig(&before);
  before.isolated = 0;
  before.use_environment = 1;
  before.utf8_mode = 1;
  check(Py_PreInitialize(&before));
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.install_signal_handlers = 0;
  config.parse_argv = 0;
  config.user_site_directory = 0;
#if PY_VERSION_HEX >= 0x030b0000
  config.safe_path = 1;  // no module of the host's working directory
#endif
  PyStatus status = PyConfig_SetBytesString(&config, &config.program_name, executable.c_str());
  if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
  PyConfig_Clear(&config);
  check(status);
  import_signals();
}

std::string prefix() { return py::module_::import("sys").attr("prefix").cast<std::string>(); }

void import_package() {
  try {
    py::object module = py::module_::import("specbeam.serve.embedded");
    const auto version = py::module_::import("specbeam").attr("__version__").cast<std::string>();
    if (version != SPECBEAM_VERSION) {
      fail("this library is of specbeam " SPECBEAM_VERSION ", and " + prefix() + " has " + version +
           ". Install the same version of both.");
    }
    package = module.release().ptr();
  } catch (py::error_already_set& error) {
    const auto why = py::str(error.value()).cast<std::string>();
    const std::string python = executable.empty() ? prefix() + "/bin/python" : executable;
    fail("the environment " + prefix() + " cannot serve: " + why + ". Install specbeam there, from its source: " +
         python + " -m pip install '.[cpu]'. Or name another environment, in a new process.");
  }
}

// A second environment is another interpreter, and a process has one.
void check_same(const char* python) {
  if (python == nullptr) return;
  Acquired acquired;
  const fs::path wanted = fs::weakly_canonical(python_of(python).parent_path().parent_path());
  if (wanted != fs::weakly_canonical(prefix())) {
    fail("this process runs Python in " + prefix() + ", and cannot run another one in " + wanted.string() +
         ". Leave the option out, or open the bundle in a process of its own.");
  }
}

}  // namespace

void start(const char* python) {
  Released released;
  std::lock_guard<std::mutex> lock(starting);
  check_not_forked();
  if (!broken.empty()) fail(broken);
  if (!Py_IsInitialized()) {
    const fs::path found = python_of(python);
    check_version(found);
    show_to_all();
    executable = found.string();
    initialize();
    started_in = getpid();
    PyEval_SaveThread();
  }
  check_same(python);
  if (package != nullptr) return;
  show_to_all();
  Acquired acquired;
  import_package();
}

py::handle interpreter() { return package; }

}  // namespace inside
