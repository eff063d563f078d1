/* Opens a bundle once for each PYTHON: open BUNDLE PYTHON... prints status and error; PYTHON "-": none is named. */
#include <specbeam.h>
#include <stdio.h>
#include <string.h>

int main(int count, char** words) {
  for (int i = 2; i < count; ++i) {
    specbeam_options options;
    specbeam_engine* engine;
    specbeam_options_default(&options);
    options.python = strcmp(words[i], "-") == 0 ? NULL : words[i];
    specbeam_status status = specbeam_open(words[1], &options, &engine);
    printf("%d\t%s\n", (int)status, status == SPECBEAM_OK ? "" : specbeam_last_error());
    specbeam_close(engine);
  }
  return 0;
}
