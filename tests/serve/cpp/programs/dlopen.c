/* A program that is not linked to the library: dlopen LIBRARY BUNDLE ITEM... loads it for itself alone. */
#include <dlfcn.h>
#include <specbeam.h>
#include <stdio.h>

/* What is declared as `name`, as the library has it. */
#define FUNCTION(name, own) __typeof__(&name) own = (__typeof__(&name))dlsym(library, #name)

int main(int count, char** words) {
  specbeam_engine* engine = NULL;
  specbeam_result* result = NULL;
  if (count < 4) return 2;
  void* library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  FUNCTION(specbeam_open, open);
  FUNCTION(specbeam_recommend, ask);
  FUNCTION(specbeam_result_size, size);
  FUNCTION(specbeam_result_item, item);
  FUNCTION(specbeam_last_error, last);
  FUNCTION(specbeam_close, close);
  FUNCTION(specbeam_result_free, let_go);
  if (open(words[2], NULL, &engine) != SPECBEAM_OK ||
      ask(engine, (const char* const*)(words + 3), (size_t)(count - 3), NULL, &result) != SPECBEAM_OK) {
    fprintf(stderr, "%s\n", last());
    return 1;
  }
  for (size_t rank = 0; rank < size(result); ++rank) printf("%s\n", item(result, rank));
  let_go(result);
  close(engine);
  dlclose(library); /* it stays, as Python does */
  return 0;
}
