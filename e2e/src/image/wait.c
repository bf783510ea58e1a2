// Waits until it is told to stop. As the first process of a container it has no default for
// signals, and orphans to reap.
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, 0, WNOHANG) > 0) {} }

int main(int count, char **arguments) {
  if (count > 1 && strcmp(arguments[1], "done") == 0) return 0;
  signal(SIGTERM, stop);
  signal(SIGINT, stop);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
