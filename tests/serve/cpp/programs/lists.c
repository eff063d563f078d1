/*
 * Lists from C: lists BUNDLE SETTINGS, and a request a line on standard input, its fields separated by tabs:
 * k, user, verification, exclude_history, allow, deny, items. "-": not said; allow, deny and items are separated by
 * blanks. Printed are the list's unknown items and, of each item, id, title, score, place and tokens; then an empty line.
 */
#include <specbeam.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 256

static void check(specbeam_status status) {
  if (status == SPECBEAM_OK) return;
  fprintf(stderr, "%d: %s\n", status, specbeam_last_error());
  exit(1);
}

/* Splits in place; returns how many parts. */
static size_t split(char* text, char separator, char** parts) {
  size_t count = 0;
  for (char* next = text; next != NULL && count < MOST; ++count) {
    parts[count] = next;
    next = strchr(next, separator);
    if (next != NULL) *next++ = '\0';
  }
  return count;
}

static const char* said(const char* field) { return strcmp(field, "-") == 0 ? NULL : field; }

static specbeam_filter* filter(specbeam_engine* engine, char* allow, char* deny) {
  char *allowed[MOST], *denied[MOST];
  size_t allows = said(allow) == NULL ? 0 : split(allow, ' ', allowed);
  size_t denies = said(deny) == NULL ? 0 : split(deny, ' ', denied);
  specbeam_filter* made;
  if (allows + denies == 0) return NULL;
  check(specbeam_filter_create(engine, allows == 0 ? NULL : (const char* const*)allowed, allows,
                               (const char* const*)denied, denies, &made));
  return made;
}

static void print(const specbeam_result* result) {
  printf("%lld\n", (long long)specbeam_result_unknown_items(result));
  for (size_t rank = 0; rank < specbeam_result_size(result); ++rank) {
    const char* title = specbeam_result_title(result, rank);
    printf("%s\t%s\t%.17g\t%lld\t", specbeam_result_item(result, rank), title == NULL ? "-" : title,
           specbeam_result_score(result, rank), (long long)specbeam_result_place(result, rank));
    for (size_t token = 0; token < specbeam_result_tokens(result, rank); ++token) {
      printf("%s%s", token == 0 ? "" : " ", specbeam_result_token(result, rank, token));
    }
    printf("\n");
  }
  printf("\n");
}

static void answer(specbeam_engine* engine, char* line) {
  char *fields[MOST], *items[MOST];
  specbeam_ask ask;
  specbeam_result* result;
  size_t count;
  if (split(line, '\t', fields) != 7) exit(2);
  specbeam_ask_default(&ask);
  if (said(fields[0]) != NULL) ask.k = atoll(fields[0]);
  ask.user = said(fields[1]);
  ask.verification = said(fields[2]);
  ask.exclude_history = atoi(fields[3]);
  specbeam_filter* made = filter(engine, fields[4], fields[5]);
  ask.filter = made;
  count = split(fields[6], ' ', items);
  check(specbeam_recommend(engine, (const char* const*)items, count, &ask, &result));
  specbeam_filter_free(made);
  print(result);
  specbeam_result_free(result);
}

int main(int count, char** words) {
  static char line[1 << 16];
  specbeam_options options;
  specbeam_engine* engine;
  if (count != 3) return 2;
  specbeam_options_default(&options);
  options.settings = words[2];
  check(specbeam_open(words[1], &options, &engine));
  while (fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    answer(engine, line);
  }
  specbeam_close(engine);
  return 0;
}
