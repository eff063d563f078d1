/* What of the process is the host's: state BUNDLE prints a line of it before and after a list is asked for. */
#define _GNU_SOURCE
#include <locale.h>
#include <signal.h>
#include <specbeam.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print(void) {
  struct sigaction on_interrupt, on_pipe;
  char folder[4096];
  sigaction(SIGINT, NULL, &on_interrupt);
  sigaction(SIGPIPE, NULL, &on_pipe);
  printf("SIGINT %d SIGPIPE %d locale %s point %s folder %s environment %s\n", on_interrupt.sa_handler != SIG_DFL,
         on_pipe.sa_handler != SIG_DFL, setlocale(LC_ALL, NULL), localeconv()->decimal_point,
         getcwd(folder, sizeof folder), getenv("SPECBEAM_PYTHON") == NULL ? "-" : "set");
}

int main(int count, char** words) {
  static const char* const ITEMS[] = {"1", "2"};
  specbeam_engine* engine;
  specbeam_result* result;
  if (count != 2) return 2;
  signal(SIGINT, SIG_DFL); /* who starts programs in the background may have them ignore it */
  signal(SIGPIPE, SIG_DFL);
  print();
  if (specbeam_open(words[1], NULL, &engine) != SPECBEAM_OK) {
    fprintf(stderr, "%s\n", specbeam_last_error());
    return 1;
  }
  if (specbeam_recommend(engine, ITEMS, 2, NULL, &result) != SPECBEAM_OK) return 1;
  specbeam_result_free(result);
  specbeam_close(engine);
  print();
  return 0;
}
