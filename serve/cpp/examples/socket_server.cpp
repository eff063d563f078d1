// Lists over a Unix socket, by one thread: socket_server BUNDLE SOCKET [K]
//
// A line of item ids, oldest first, is answered by a line of item ids, best first, or "error: ...", in the order of the
// lines. Connections and lists are waited for in one loop: a request that has ended wakes it through an eventfd.
// SIGTERM and SIGINT end the server once what it has read is answered.
#include <specbeam.hpp>

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iostream>
#include <list>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

namespace {

constexpr std::size_t LONGEST = 1 << 16;  // bytes of a line, and of answers that nobody takes
constexpr std::size_t AHEAD = 8;          // lines of one connection on their way; more wait in its buffer

[[noreturn]] void fail(const std::string& what) { throw std::system_error(errno, std::generic_category(), what); }

// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor(int number, const char* what) : number_(number) {
    if (number < 0) fail(what);
  }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  int get() const { return number_; }

 private:
  int number_;
};

using Answer = std::variant<specbeam::Pending, std::string>;  // on its way, or why there is none

struct Connection {
  explicit Connection(Descriptor taken) : socket(std::move(taken)) {}

  bool lines() const { return answers.size() < AHEAD && in.find('\n') != std::string::npos; }
  bool reads() const { return !ended && answers.size() < AHEAD && out.size() < LONGEST; }
  bool done() const { return broken || (ended && answers.empty() && out.empty()); }

  Descriptor socket;
  std::string in, out;
  std::deque<Answer> answers;
  bool ended = false, broken = false;  // nothing more to read; nobody there
};

std::string listed(const specbeam::Result& result) {
  std::string line;
  for (const specbeam::Item& item : result) line.append(line.empty() ? "" : " ").append(item.id);
  return line;
}

class Server {
 public:
  Server(const std::string& bundle, const std::string& path, std::int64_t k)
      : woken_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "an eventfd"),
        signals_(signalfd(-1, &ending(), SFD_CLOEXEC), "a signalfd"),
        listener_(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "a socket"),
        path_(path),
        engine_(bundle) {
    ask_.k = k;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) throw std::runtime_error(path + " is too long for a socket's path.");
    path.copy(address.sun_path, path.size());
    if (bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) fail(path);
    if (listen(listener_.get(), 128) != 0) fail(path);
  }
  ~Server() { unlink(path_.c_str()); }

  void run() {
    std::cerr << "listening at " << path_ << std::endl;
    while (!ending_ || !connections_.empty()) {
      wait();
      for (Connection& connection : connections_) {
        serve(connection);
        write(connection);
      }
      connections_.remove_if([](const Connection& connection) { return connection.done(); });
    }
  }

  // The signals that end the server; blocked in all threads, so call it before there are others.
  static const sigset_t& ending() {
    static const sigset_t set = [] {
      sigset_t made;
      sigemptyset(&made);
      sigaddset(&made, SIGTERM);
      sigaddset(&made, SIGINT);
      pthread_sigmask(SIG_BLOCK, &made, nullptr);
      return made;
    }();
    return set;
  }

 private:
  // Until something has happened; reads what there is.
  void wait() {
    std::vector<pollfd> polled = {{woken_.get(), POLLIN, 0},
                                  {ending_ ? -1 : signals_.get(), POLLIN, 0},
                                  {ending_ ? -1 : listener_.get(), POLLIN, 0}};
    for (const Connection& connection : connections_) {
      const int events = (connection.reads() ? POLLIN : 0) | (connection.out.empty() ? 0 : POLLOUT);
      polled.push_back({connection.socket.get(), static_cast<short>(events), 0});
    }
    if (poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) fail("poll");
    std::uint64_t times = 0;
    if (polled[0].revents != 0 && ::read(woken_.get(), &times, sizeof times) < 0 && errno != EAGAIN) {
      fail("an eventfd");
    }
    auto state = polled.begin() + 3;
    for (Connection& connection : connections_) {
      const short seen = (state++)->revents;
      if ((seen & (POLLERR | POLLHUP | POLLNVAL)) != 0) connection.broken = true;
      if ((seen & POLLIN) != 0) read(connection);
    }
    if (polled[2].revents != 0) accept_all();
    if (polled[1].revents != 0) {
      ending_ = true;
      for (Connection& connection : connections_) connection.ended = true;
    }
  }

  void accept_all() {
    int number = -1;
    while ((number = accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
      connections_.emplace_back(Descriptor(number, "a connection"));
    }
  }

  void read(Connection& connection) {
    char bytes[4096];
    const ssize_t count = recv(connection.socket.get(), bytes, sizeof bytes, 0);
    if (count < 0) {
      connection.broken = errno != EAGAIN && errno != EINTR;
      return;
    }
    connection.ended = count == 0;
    connection.in.append(bytes, static_cast<std::size_t>(count));
    if (connection.ended && !connection.in.empty() && connection.in.back() != '\n') connection.in += '\n';
  }

  // Asks for what has been read, as far as it may, and tells what has ended.
  void serve(Connection& connection) {
    answer(connection);
    while (connection.lines()) {
      const std::size_t end = connection.in.find('\n');
      submit(connection, connection.in.substr(0, end));
      connection.in.erase(0, end + 1);
      answer(connection);
    }
    if (connection.in.size() > LONGEST && connection.answers.size() < AHEAD) {
      connection.answers.emplace_back("the line is longer than " + std::to_string(LONGEST) + " bytes.");
      connection.in.clear();
      connection.ended = true;
      answer(connection);
    }
  }

  void submit(Connection& connection, const std::string& line) {
    std::istringstream words(line);
    std::vector<std::string> items;
    for (std::string item; words >> item;) items.push_back(item);
    try {
      specbeam::Pending pending = engine_.submit(items, ask_);
      pending.notify([number = woken_.get()] {
        const std::uint64_t once = 1;
        if (::write(number, &once, sizeof once) < 0) std::cerr << "an eventfd: " << std::strerror(errno) << '\n';
      });
      connection.answers.emplace_back(std::move(pending));
    } catch (const specbeam::Error& error) {
      connection.answers.emplace_back(error.what());
    }
  }

  // What has ended, in the order of the lines.
  void answer(Connection& connection) {
    while (!connection.answers.empty()) {
      const Answer& first = connection.answers.front();
      const auto* pending = std::get_if<specbeam::Pending>(&first);
      if (pending != nullptr && !pending->done()) return;
      try {
        connection.out += pending == nullptr ? "error: " + std::get<std::string>(first) : listed(pending->wait());
      } catch (const specbeam::Error& error) {
        connection.out.append("error: ").append(error.what());
      }
      connection.out += '\n';
      connection.answers.pop_front();
    }
  }

  void write(Connection& connection) {
    while (!connection.broken && !connection.out.empty()) {
      const ssize_t count = send(connection.socket.get(), connection.out.data(), connection.out.size(), MSG_NOSIGNAL);
      if (count < 0 && errno == EAGAIN) return;
      if (count < 0) connection.broken = errno != EINTR;
      if (count > 0) connection.out.erase(0, static_cast<std::size_t>(count));
    }
  }

  Descriptor woken_, signals_, listener_;
  std::string path_;
  specbeam::Engine engine_;
  specbeam::Ask ask_;
  std::list<Connection> connections_;  // its requests end before the engine does
  bool ending_ = false;
};

}  // namespace

int main(int count, char** words) {
  const std::int64_t k = count > 3 ? std::atoll(words[3]) : 20;
  if (count < 3 || count > 4 || k < 1) {
    std::cerr << "socket_server BUNDLE SOCKET [K]\n";
    return 2;
  }
  try {
    Server::ending();
    Server(words[1], words[2], k).run();
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
