//! The default words, one line per language, separated by commas: English, German, Spanish, French, Italian, Portuguese,
//! Dutch, Turkish, Polish.
//!
//! All languages count at once, so a word that people say in passing in one of them is not here for another: `dur` (French: hard), `weiter`,
//! `alta`, `pare`, `prima` and `vale` (Italian), `ferma` (Polish), `résumé`, `kabul`, `y`. "No", "nie" (German: never), "ja" (Polish: I) and "sim"
//! (a card) are the exceptions: nobody can do without them, and who writes nothing else under a question for consent answers it.

pub(super) const ACCEPT: &[&str] = &[
    "yes, yep, yeah, ok, okay, sure, accept, i accept, agree, i agree, allow, opt in, optin, opt me in",
    "ja, jawohl, ja bitte, bitte ja, ja gerne, ja gern, ja klar, ja natürlich, ja danke, ja einverstanden, ja ich stimme zu, ja ok, gerne, einverstanden, zustimmen, ich stimme zu, akzeptieren, annehmen, erlauben",
    "sí, acepto, aceptar, de acuerdo, claro, sí vale, vale gracias",
    "oui, j'accepte, accepter, d'accord",
    "accetto, accetta, accettare, d'accordo, va bene",
    "sim, aceito, aceitar, concordo, tá bom",
    "akkoord, accepteren, ik ga akkoord, ja graag, graag, ja hoor, ja prima, ja akkoord, ja dank je",
    "evet, kabul ediyorum, kabul et, onaylıyorum, tamam, olur",
    "tak, zgadzam się, akceptuję, zgoda",
];

/// Words that accept under the opt-in message, where they can mean nothing else.
pub(super) const ACCEPT_TITLES: &[&str] = &["vale"];

pub(super) const DECLINE: &[&str] = &[
    "no, n, nope, decline, i decline, disagree, reject, not interested, i'm not interested",
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
    "stop, quit, end, revoke, opt out, cancel, unsubscribe",
    "stop it, stop this, stop that, stop all, stop everything, stop messages, stop the messages, stop these messages",
    "stop messaging, stop messaging me, stop texting, stop texting me, stop writing, stop writing me, stop writing to me",
    "stop contacting me, stop spamming, stop spamming me, stop sending messages, stop sending me messages",
    "stop sending these messages, stop sending me these messages, i said stop, i want to stop receiving messages",
    "unsubscribe me, i want to unsubscribe, i'd like to unsubscribe, unsubscribe all, unsubscribe me from all",
    "opt me out, i opt out, i want to opt out, no more messages, do not contact me, don't contact me, do not message me",
    "don't message me, do not text me, don't text me, do not write me, don't write to me, remove me",
    "remove me from your list, remove me from the list, take me off your list, take me off the list, leave me alone",
    "stopp, abmelden, abbestellen, austragen, keine nachrichten mehr, hör auf, hören sie auf, aufhören",
    "lass mich in ruhe, lassen sie mich in ruhe, schreib mir nicht mehr, schreiben sie mir nicht mehr",
    "parar, baja, darme de baja, dame de baja, quiero darme de baja, no más mensajes, no me escribas más",
    "no me escriban más, no me envíen más mensajes, no quiero recibir mensajes, no quiero recibir más mensajes",
    "arrêt, arrête, arrêter, arrêtez, désabonner, me désabonner, désabonnez-moi, désinscription, me désinscrire",
    "plus de messages, ne m'écrivez plus",
    "basta, fermati, smettila, smettetela, annulla iscrizione, annulla l'iscrizione, disiscrivimi, disiscrivetemi",
    "cancellami, non scrivetemi più",
    "sair, cancelar, descadastrar, descadastre-me, me descadastre, parar mensagens, não quero receber mensagens",
    "não quero mais receber mensagens, não me envie mais mensagens, sair da lista",
    "afmelden, uitschrijven, schrijf me uit, meld me af, stoppen, geen berichten meer",
    "durdur, iptal, abonelikten çık, mesaj göndermeyin, bana yazmayın",
    "koniec, wypisz, wypisz mnie, rezygnuję, zatrzymaj, nie pisz do mnie, nie piszcie do mnie",
];

/// Words on a button that can mean nothing but an opt-out, whatever the button stands under. No "Cancel", "End" or "Baja": these may be
/// about an order or an appointment.
pub(super) const STOP_TITLES: &[&str] = &[
    "stop, stop all, stop messages, stop messaging me, unsubscribe, unsubscribe me, opt out, opt me out, no more messages",
    "stopp, keine nachrichten mehr",
    "no más mensajes, no quiero recibir mensajes, desuscribirme, desuscribir",
    "désabonner, me désabonner, se désabonner, plus de messages",
    "disiscrivimi, disiscriviti",
    "descadastrar, parar mensagens",
    "geen berichten meer",
    "abonelikten çık",
    "wypisz mnie",
];

/// WhatsApp's own opt-out button below marketing templates ("Stop promotions"), in its translations and in what people write for it.
pub(super) const STOP_MARKETING: &[&str] = &[
    "stop promotions, stop promotion, stop promos, stop promo, stop marketing, stop marketing messages, stop offers, stop ads",
    "stop the promotions, stop all promotions, stop sending promotions, stop sending me promotions, stop promotional messages",
    "stop advertising, stop advertisements, no promotions, no more promotions, no more promos, no more offers, no marketing",
    "no more marketing, no more ads, no ads, no advertising, unsubscribe from promotions, unsubscribe from marketing",
    "opt out of promotions, opt out of marketing, end promotions, cancel promotions",
    "werbung stoppen, werbung beenden, werbeaktionen stoppen, werbeaktionen beenden, werbenachrichten stoppen, stopp werbung",
    "promotions stoppen, promotionen stoppen, angebote stoppen, marketing stoppen, keine werbung, keine werbung mehr",
    "bitte keine werbung mehr, keine angebote mehr, keine werbenachrichten mehr, aktionen stoppen, werbung abbestellen",
    "detener promociones, detener las promociones, parar promociones, cancelar promociones, dejar promociones",
    "no más promociones, no quiero promociones, no quiero recibir promociones, no más publicidad, detener publicidad",
    "arrêter les promotions, arrêter promotions, arrêtez les promotions, stopper les promotions, arrêt des promotions",
    "plus de promotions, plus de promos, plus de publicité, plus de pub, pas de publicité, stop pub, stop publicité",
    "interrompi promozioni, interrompi le promozioni, ferma promozioni, ferma le promozioni, blocca promozioni",
    "blocca le promozioni, stop promozioni, basta promozioni, basta pubblicità, niente promozioni, niente pubblicità",
    "parar promoções, parar promoção, parar as promoções, interromper promoções, interromper as promoções, sem promoções",
    "cancelar promoções, não quero promoções, não quero receber promoções, chega de promoções",
    "promoties stoppen, promoties stopzetten, stop promoties, stop met promoties, aanbiedingen stoppen, stop aanbiedingen",
    "geen promoties, geen promoties meer, geen reclame, geen reclame meer, stop reclame, reclame stoppen",
    "promosyonları durdur, promosyon durdur, tanıtımları durdur, reklamları durdur, kampanyaları durdur, reklam istemiyorum",
    "zatrzymaj promocje, wstrzymaj promocje, stop promocjom, wyłącz promocje, koniec promocji, bez reklam, stop reklamom",
    // Templates stand in more languages than people are understood in.
    "остановить рекламу, остановить промоакции, остановить акции, зупинити рекламу, hentikan promosi, berhenti promosi",
    "إيقاف العروض الترويجية, إيقاف العروض, प्रमोशन रोकें, प्रमोशन बंद करें",
];

pub(super) const START: &[&str] = &[
    "start, unstop, restart, subscribe, subscribe me, opt me back in",
    "anmelden, starten",
    "iniciar, darme de alta, empezar, comenzar",
    "démarrer, commencer, reprendre, s'abonner, m'abonner",
    "inizia, avvia, iscrivimi, riprendi",
    "começar, assinar, retomar",
    "aanmelden, hervatten",
    "başla, başlat",
    "zacznij, wznów, zapisz mnie",
];

/// Words that people put around an answer without changing it.
pub(super) const COURTESY: &str = "please pls plz thanks thank thx you now hi hello hey kindly bitte danke por favor gracias merci svp \
    per favore grazie obrigado obrigada alsjeblieft alstublieft dank bedankt lütfen teşekkürler proszę dziękuję";
