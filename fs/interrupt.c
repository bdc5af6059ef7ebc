#include "interrupt.h"

#include <time.h>

void interrupt_block(sigset_t *signals)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};

    sigemptyset(signals);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct sigaction action;
        if (sigaction(numbers[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(signals, numbers[i]);
    }
    pthread_sigmask(SIG_BLOCK, signals, NULL);
}

bool interrupt_pending(const sigset_t *signals)
{
    const struct timespec now = {0};

    return sigtimedwait(signals, NULL, &now) > 0;
}
