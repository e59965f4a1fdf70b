//! The default words, one line per language, separated by commas: English, German, Spanish, French, Italian, Portuguese,
//! Dutch, Turkish, Polish.

pub(super) const ACCEPT: &[&str] = &[
    "yes, y, yep, yeah, ok, okay, sure, accept, i accept, agree, i agree, allow, opt in, optin",
    "ja, jawohl, gerne, einverstanden, zustimmen, ich stimme zu, akzeptieren, annehmen, erlauben",
    "sí, acepto, aceptar, de acuerdo, vale, claro",
    "oui, j'accepte, accepter, d'accord",
    "accetto, accetta, accettare, d'accordo, va bene",
    "sim, aceito, aceitar, concordo, tá bom",
    "akkoord, accepteren, ik ga akkoord, prima",
    "evet, kabul, kabul ediyorum, onaylıyorum, tamam, olur",
    "tak, zgadzam się, akceptuję, zgoda",
];

pub(super) const DECLINE: &[&str] = &[
    "no, n, nope, decline, i decline, disagree, reject, not interested",
    "nein, nö, ablehnen, ich lehne ab, kein interesse",
    "rechazar, rechazo, no acepto, no me interesa",
    "non, refuser, je refuse, pas intéressé",
    "rifiuto, rifiuta, rifiutare, non accetto, non mi interessa",
    "não, recusar, recuso, não aceito",
    "nee, weigeren, afwijzen, geen interesse",
    "hayır, reddet, reddediyorum, istemiyorum",
    "nie, odrzuć, odrzucam, nie zgadzam się",
];

// The first line is what United States law takes as a revocation in a text message whatever else is offered (47 CFR
// 64.1200(a)(10)); a false stop is undone by START, a missed one is a breach.
pub(super) const STOP: &[&str] = &[
    "stop, quit, end, revoke, opt out, optout, cancel, unsubscribe",
    "stop all, stopall, stop messages, stop messaging, stop messaging me, stop sending messages, stop sending me messages",
    "no more messages, remove me",
    "stopp, abmelden, abbestellen, austragen, keine nachrichten mehr",
    "parar, pare, baja, darme de baja, no más mensajes",
    "arrêt, arrêter, arrêtez, désabonner, désinscription, me désinscrire, plus de messages",
    "basta, ferma, fermati, annulla iscrizione, disiscrivimi, cancellami",
    "sair, cancelar, descadastrar, parar mensagens",
    "afmelden, uitschrijven, stoppen, geen berichten meer",
    "dur, durdur, iptal, abonelikten çık",
    "koniec, wypisz, wypisz mnie, rezygnuję, zatrzymaj",
];

pub(super) const START: &[&str] = &[
    "start, unstop, restart, resume, subscribe",
    "anmelden, starten, weiter",
    "iniciar, alta, empezar, comenzar",
    "démarrer, commencer, reprendre, s'abonner",
    "inizia, avvia, iscrivimi, riprendi",
    "começar, assinar, retomar",
    "aanmelden, hervatten",
    "başla, başlat",
    "zacznij, wznów, zapisz mnie",
];

/// Words that people put around an answer without changing it.
pub(super) const COURTESY: &str = "please pls plz thanks thank thx you now hi hello bitte danke por favor gracias merci svp \
    per favore grazie obrigado obrigada alsjeblieft alstublieft dank bedankt lütfen teşekkürler proszę dziękuję";
