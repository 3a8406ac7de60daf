# A compiler and make; what a crash says.
cat > main.c <<'X'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
static void *work(void *said) { puts(said); return 0; }
int main(int count, char **words) {
    pthread_t thread;
    if (count > 1) abort();
    pthread_create(&thread, 0, work, "threaded");
    return pthread_join(thread, 0);
}
X
printf 'main: main.c\n\tcc -g -pthread -o main main.c\n' > Makefile
make -s -j2
./main
sh -c './main crash; echo "ended with $?"' 2>/dev/null
ls core* 2>/dev/null || echo no core
# says:
# threaded
# ended with 134
# no core
